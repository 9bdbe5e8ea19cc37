//! Foreign traces in: one file per format, chosen by a probe of the content.
