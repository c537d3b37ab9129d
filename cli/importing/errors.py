"""Why an import can't begin or go on, in sentences for people."""


class ImportStoppedError(Exception):
    """Nothing more is sent. What was answered is stored; the same command again goes on."""
