//! A run as one HTML file, CSV or JSON lines.
