"""What people look at: tables on the console, figures, and the HTML page. All of it only says what evaluation.json holds."""
