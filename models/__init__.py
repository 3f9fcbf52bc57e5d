"""What a model is: a folder on disk, and the way from pixels to labels. No torch outside `nets`."""
