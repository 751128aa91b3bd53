"""InvokeEndpointAsync: a queue on disk, and the workers that empty it. Apart from the token path: it runs in the control process."""
