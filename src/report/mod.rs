//! A verdict as bytes: text, JSON.
