"""The workflow of MIM Segment in a browser, on Slicer's own core."""
