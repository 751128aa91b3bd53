"""The chat page: a Streamlit app that talks to SageMaker endpoints, Penstock's or AWS's.

Owns what a person sees. It must never know Penstock's inside: it uses boto3 and `penstock.client` only.
"""
