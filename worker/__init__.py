"""The worker: a Celery shell around a plain library, `worker.engine`, which alone knows neural networks."""
