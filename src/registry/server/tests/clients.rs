//! Real clients, and another registry as the oracle.
