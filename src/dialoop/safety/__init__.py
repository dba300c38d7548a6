"""The moderation filter: word lists with categories and actions, on what comes in and goes out."""
