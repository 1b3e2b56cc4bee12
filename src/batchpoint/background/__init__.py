"""What goes on by itself: the dispatcher and its companions."""
