"""The dashboard: what the API answers, as pages for people.

The pages are made on the server and work without JavaScript. What is asked
is asked of the API's own operations, so that a person and a program never
see two truths.
"""
