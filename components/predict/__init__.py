"""Component predict."""

from components.predict.component import predict as predict
