"""From videos as they were downloaded or filmed to a checked data set with a manifest."""
