"""The distributed half of feature building: Spark decides who reads which bytes, the encoder works in its tasks."""
