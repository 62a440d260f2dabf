"""The HTML report about finished runs, and the charts of all pages."""
