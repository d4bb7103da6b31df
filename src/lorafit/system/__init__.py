"""Nothing here knows what a model is: files, records, hardware, assets, progress."""
