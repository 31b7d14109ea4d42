"""Monthly invoices: what an organisation's usage records of a month add up to, as JSON, CSV, HTML and PDF."""
