"""The SageMaker API: one file a noun.

Owns AWS's rules and texts for Models, EndpointConfigs, Endpoints, InferenceComponents and tags. It must never run anything: it writes what
should be, and the reconciler sees to it.
"""
