"""`usageflow audit invoices`: the chain of documents, and every line worked out anew from the raw
events, with code that shares nothing with invoicer's.
"""
