//! What this node has to hold for the overlay, kept up to date lease by lease. Pure.
