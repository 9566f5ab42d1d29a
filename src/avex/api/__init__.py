"""The packaged model cards and the doors that older documents name."""
