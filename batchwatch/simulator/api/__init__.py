"""What is told: the routes of the API, and those that open the truth to tests and demos."""
