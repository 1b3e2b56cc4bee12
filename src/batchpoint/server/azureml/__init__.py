"""The Azure ML dialect: its wire forms and ours, translated; every route calls the operations that ``/api/v1`` calls.

Source of all forms: the traffic of the official ``azure-ai-ml`` client. docs/azureml.md says what is understood.
"""
