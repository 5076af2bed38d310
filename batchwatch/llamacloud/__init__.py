"""The upstream API as batchwatch uses it: three questions, asked within a budget, read tolerantly.

From the question to what may go wrong with it:

    client     the questions: list batches, get one, look up jobs by their ids
    paging     follow next_page_token to the end, and no further
    transport  one question to its answer: budget, tries, bounds
    key        the API key, kept out of all that people and machines read
    budget     how many requests there may be, and who goes first
    wire       JSON as it comes, into what the domain knows
    headers    when an answer was sent, and when to ask again
    diagnosis  what a bad answer means, and what to do about it
    errors     the tree of those
"""
