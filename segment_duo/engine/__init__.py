"""The engine: a daemon that holds models and embeddings, its protocol and its client.

    connect ->  client, wire, lifecycle  ->  protocol, reports  <-  server, routes  ->  worker  ->  operations  ->  cache, loaded_models

``protocol``, ``reports``, ``settings``, ``client`` and ``lifecycle`` run in every command and stay light; ``server`` and what lies behind it run in
the engine's process only. The engine knows pixels and prompts, never image files or servers.
"""
