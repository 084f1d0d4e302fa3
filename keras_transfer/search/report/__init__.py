"""What a search found: leaderboard, importance, pages and tables."""
