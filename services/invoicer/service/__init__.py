"""What invoicer does when it is asked, by what it is about.

Each use case is one transaction of one tenant, committed at its end: nothing of another tenant's is
ever seen or changed. All raise InvalidArgumentError naming every wrong field, NotFoundError for
what the tenant does not have, UnavailableError when PostgreSQL is away.
"""
