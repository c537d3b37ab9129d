"""What somebody who checks invoices anew, apart from invoicer, has to know of them."""
