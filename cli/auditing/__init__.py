"""`usageflow audit`: figures are counted anew from the raw events, by code of its own."""
