//! What the daemon says about itself: counters, histograms, logs. Knows no other layer.
