"""Generated shapes of classes, stored by one release of a program and read by the next one, in which the classes have changed."""
