"""Tasks on Spark: the only room here that imports pyspark."""
