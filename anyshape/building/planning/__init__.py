"""Planning buckets from data. plan.py makes a plan; the other files are what it is made from and with."""
