"""The worker: a Celery shell around a plain library. The library is `worker.engine`; nothing else here knows networks."""
