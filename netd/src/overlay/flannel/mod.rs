//! flannel's words: `<prefix>/config`, lease keys and values, `subnet.env`.
