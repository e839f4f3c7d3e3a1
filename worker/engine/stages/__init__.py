"""What the pipeline's list is made of: the job it is asked to do, loading, the steps, and how progress is told."""
