"""Brings a model's files to where the server reads them: the init container of a serving pod."""
