"""Bytes to log rows: records, parsing, joining, and what is said of rows that cannot be used."""
