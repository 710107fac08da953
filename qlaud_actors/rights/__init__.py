"""The rights of the people in the conversations: to have a copy of them, and to have them gone."""
