"""`usageflow simulate`: what past months would have cost with a plan, over HTTP."""
