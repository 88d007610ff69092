"""Photographs of the field's data sets: PASCAL-5i, COCO-20i and FSS-1000, a file each, on one base.

Which images belong to a split is what published numbers rest on: change it only with the lists' hashes in view.
"""
