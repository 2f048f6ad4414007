"""OpenLineage: the files that a task read on RAP, and the files that it wrote to the lake."""
