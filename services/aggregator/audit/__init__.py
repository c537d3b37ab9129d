"""What an audit, which counts usage anew elsewhere, asks of aggregator."""
