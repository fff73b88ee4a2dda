"""Where tasks run and how they get there: sites, queues, stores, the task server, what workers do."""
