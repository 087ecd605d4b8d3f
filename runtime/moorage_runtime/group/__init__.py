"""Several processes that compute one model: who is who, how they meet, and how they tell that one is lost."""
