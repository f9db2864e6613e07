"""The distributed half of feature building: Spark decides who reads which bytes, the encoder does the work in its tasks."""
