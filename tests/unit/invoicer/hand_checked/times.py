"""What base prices of parts of periods cost in the customer's time zone.

(period, anchor, time zone, start in UTC, base price, seats, currency, end of the first period in
UTC, its base price, arithmetic). A day has 86,400 s, January 2,678,400 s, a 30-day month
2,592,000 s, a week 604,800 s. Clocks go forward on 29 March 2026 in Europe and on 8 March in New
York, back on 25 October and 1 November.
"""

CASES = [
    # Whole months
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-01T00:00", "100", 1, "USD", "2026-02-01T00:00",
     "100.00",
     "100 x 2678400 / 2678400 = 100"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-01T00:00", "100", 7, "USD", "2026-02-01T00:00",
     "700.00",
     "7 x 100 = 700"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-01T00:00", "99.995", 1, "USD", "2026-02-01T00:00",
     "100.00",
     "99.995 ~ 100"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-01T00:00", "100.5", 1, "JPY", "2026-02-01T00:00", "101",
     "100.5 ~ 101"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-01T00:00", "1.0005", 3, "KWD", "2026-02-01T00:00",
     "3.002",
     "3 x 1.0005 = 3.0015; 3.0015 ~ 3.002"),
    # First parts of months
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-16T00:00", "31", 1, "USD", "2026-02-01T00:00", "16.00",
     "16 x 86400 = 1382400; 31 x 1382400 / 2678400 = 16"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-16T00:00", "100", 1, "USD", "2026-02-01T00:00", "51.61",
     "16 / 31 x 100 = 1600 / 31; 1600 / 31 ~ 51.61"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-16T00:00", "100", 1, "JPY", "2026-02-01T00:00", "52",
     "1600 / 31 ~ 52"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-16T00:00", "100", 1, "KWD", "2026-02-01T00:00",
     "51.613",
     "1600 / 31 ~ 51.613"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-31T23:45", "100", 1, "USD", "2026-02-01T00:00", "0.03",
     "15 x 60 = 900; 100 x 900 / 2678400 = 90000 / 2678400; 90000 / 2678400 ~ 0.03"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-01-31T23:45", "100", 3, "USD", "2026-02-01T00:00", "0.10",
     "3 x 100 = 300; 300 x 900 / 2678400 = 270000 / 2678400; 270000 / 2678400 ~ 0.10"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-02-15T00:00", "28", 1, "EUR", "2026-03-01T00:00", "14.00",
     "28 x 14 / 28 = 14"),
    ("MONTHLY", "CALENDAR", "UTC", "2028-02-15T00:00", "29", 1, "EUR", "2028-03-01T00:00", "15.00",
     "29 x 15 / 29 = 15"),
    ("MONTHLY", "CALENDAR", "UTC", "2026-04-10T12:00", "60", 2, "USD", "2026-05-01T00:00", "82.00",
     "2 x 60 = 120; 20.5 x 86400 = 1771200; 120 x 1771200 / 2592000 = 82"),
    # Midnight elsewhere
    ("MONTHLY", "CALENDAR", "Asia/Kolkata", "2025-12-31T18:30", "100", 1, "INR", "2026-01-31T18:30",
     "100.00", "100 x 2678400 / 2678400 = 100"),
    ("MONTHLY", "CALENDAR", "Asia/Kathmandu", "2026-01-15T18:15", "31", 1, "USD",
     "2026-01-31T18:15",
     "16.00", "31 x 1382400 / 2678400 = 16"),
    ("MONTHLY", "CALENDAR", "Asia/Tokyo", "2026-01-16T00:00", "2976", 1, "JPY", "2026-01-31T15:00",
     "1500", "15 x 24 + 15 = 375; 31 x 24 = 744; 2976 x 375 / 744 = 1500"),
    ("MONTHLY", "CALENDAR", "Pacific/Auckland", "2026-05-31T12:00", "30", 1, "NZD",
     "2026-06-30T12:00",
     "30.00", "30 x 2592000 / 2592000 = 30"),
    ("MONTHLY", "CALENDAR", "America/St_Johns", "2026-01-16T03:30", "31", 1, "CAD",
     "2026-02-01T03:30",
     "16.00", "31 x 1382400 / 2678400 = 16"),
    # March in Berlin has 743 hours, October 745; New York's March 743, November 721
    ("MONTHLY", "CALENDAR", "Europe/Berlin", "2026-02-28T23:00", "743", 1, "EUR",
     "2026-03-31T22:00",
     "743.00", "31 x 24 - 1 = 743; 743 x 743 / 743 = 743"),
    ("MONTHLY", "CALENDAR", "Europe/Berlin", "2026-03-28T23:00", "743", 1, "EUR",
     "2026-03-31T22:00",
     "71.00", "3 x 24 - 1 = 71; 743 x 71 / 743 = 71"),
    ("MONTHLY", "CALENDAR", "Europe/Berlin", "2026-03-30T22:00", "743", 1, "EUR",
     "2026-03-31T22:00",
     "24.00", "743 x 24 / 743 = 24"),
    ("MONTHLY", "CALENDAR", "Europe/Berlin", "2026-10-24T22:00", "745", 1, "EUR",
     "2026-10-31T23:00",
     "169.00", "7 x 24 + 1 = 169; 745 x 169 / 745 = 169"),
    ("MONTHLY", "CALENDAR", "Europe/London", "2026-10-25T01:00", "745", 1, "GBP",
     "2026-11-01T00:00",
     "167.00", "7 x 24 - 1 = 167; 745 x 167 / 745 = 167"),
    ("MONTHLY", "CALENDAR", "America/New_York", "2026-03-08T05:00", "743", 1, "USD",
     "2026-04-01T04:00",
     "575.00", "24 x 24 - 1 = 575; 743 x 575 / 743 = 575"),
    ("MONTHLY", "CALENDAR", "America/New_York", "2026-11-01T04:00", "721", 1, "USD",
     "2026-12-01T05:00",
     "721.00", "30 x 24 + 1 = 721; 721 x 721 / 721 = 721"),
    ("MONTHLY", "CALENDAR", "Australia/Lord_Howe", "2026-03-31T13:00", "1441", 1, "AUD",
     "2026-04-30T13:30", "1441.00", "30 x 48 + 1 = 1441; 1441 x 1441 / 1441 = 1441"),
    # Weeks, quarters, years
    ("WEEKLY", "CALENDAR", "UTC", "2026-01-01T00:00", "7", 1, "USD", "2026-01-05T00:00", "4.00",
     "7 x 4 / 7 = 4"),
    ("WEEKLY", "CALENDAR", "UTC", "2026-01-05T00:00", "7", 1, "USD", "2026-01-12T00:00", "7.00",
     "7 x 604800 / 604800 = 7"),
    ("WEEKLY", "CALENDAR", "Europe/Berlin", "2026-03-27T23:00", "167", 1, "EUR", "2026-03-29T22:00",
     "47.00", "7 x 24 - 1 = 167; 2 x 24 - 1 = 47; 167 x 47 / 167 = 47"),
    ("QUARTERLY", "CALENDAR", "UTC", "2026-02-01T00:00", "90", 1, "USD", "2026-04-01T00:00",
     "59.00",
     "31 + 28 + 31 = 90; 28 + 31 = 59; 90 x 59 / 90 = 59"),
    ("QUARTERLY", "CALENDAR", "UTC", "2026-05-16T12:00", "300", 1, "USD", "2026-07-01T00:00",
     "150.00",
     "30 + 31 + 30 = 91; 15.5 + 30 = 45.5; 300 x 45.5 / 91 = 150"),
    ("YEARLY", "CALENDAR", "UTC", "2026-07-01T00:00", "365", 1, "USD", "2027-01-01T00:00", "184.00",
     "31 + 31 + 30 + 31 + 30 + 31 = 184; 365 x 184 / 365 = 184"),
    ("YEARLY", "CALENDAR", "UTC", "2028-07-01T00:00", "366", 2, "USD", "2029-01-01T00:00", "368.00",
     "2 x 366 = 732; 732 x 184 / 366 = 368"),
    ("YEARLY", "CALENDAR", "UTC", "2026-12-31T00:00", "100", 1, "JPY", "2027-01-01T00:00", "0",
     "100 x 1 / 365 = 100 / 365; 100 / 365 ~ 0"),
    # Anniversaries are whole periods, however long
    ("MONTHLY", "ANNIVERSARY", "UTC", "2026-01-31T10:00", "100", 1, "USD", "2026-02-28T10:00",
     "100.00",
     "100 x 28 / 28 = 100"),
    ("MONTHLY", "ANNIVERSARY", "UTC", "2028-01-31T10:00", "100", 1, "USD", "2028-02-29T10:00",
     "100.00",
     "100 x 29 / 29 = 100"),
    ("YEARLY", "ANNIVERSARY", "UTC", "2028-02-29T00:00", "1200", 1, "USD", "2029-02-28T00:00",
     "1200.00",
     "1200 x 365 / 365 = 1200"),
    ("MONTHLY", "ANNIVERSARY", "Europe/Berlin", "2026-03-15T11:00", "50", 2, "EUR",
     "2026-04-15T10:00",
     "100.00", "2 x 50 = 100"),
    # Half past two does not exist on 29 March: read as before the change, 01:30 UTC
    ("WEEKLY", "ANNIVERSARY", "Europe/Berlin", "2026-03-22T01:30", "50", 1, "EUR",
     "2026-03-29T01:30", "50.00", "50 x 604800 / 604800 = 50"),
    # and comes twice on 25 October: the first of the two, 00:30 UTC
    ("WEEKLY", "ANNIVERSARY", "Europe/Berlin", "2026-10-18T00:30", "50", 1, "EUR",
     "2026-10-25T00:30", "50.00", "50 x 604800 / 604800 = 50"),
]  # fmt: skip

# A change at a second: (timing, time zone, base price, seats, currency, when in UTC, other base
# price, other seats, base prices of the month in order, arithmetic). From the start of January in
# UTC, or its month; the first price is the whole less its rest.
CHANGES = [
    # 10 January 10:07:31 is 9 x 86,400 + 36,451 = 814,051 s into the month
    ("IN_ARREARS", "UTC", "100", 1, "USD", "2026-01-10T10:07:31", "300", 1, ["30.39", "208.82"],
     "2678400 - 814051 = 1864349; 100 x 1864349 / 2678400 ~ 69.61; 100 - 69.61 = 30.39; "
     "300 x 1864349 / 2678400 ~ 208.82; 30.39 + 208.82 = 239.21", "239.21"),
    ("IN_ARREARS", "UTC", "100", 1, "USD", "2026-01-10T10:07:31", "100", 4, ["30.39", "278.43"],
     "400 x 1864349 / 2678400 ~ 278.43; 30.39 + 278.43 = 308.82", "308.82"),
    ("IN_ARREARS", "UTC", "1000", 1, "JPY", "2026-01-10T10:07:31", "3000", 1, ["304", "2088"],
     "1000 x 1864349 / 2678400 ~ 696; 1000 - 696 = 304; 3000 x 1864349 / 2678400 ~ 2088; "
     "304 + 2088 = 2392", "2392"),
    # The last second of January costs 2,678,400 / 2,678,400 = 1.00
    ("IN_ARREARS", "UTC", "0", 1, "USD", "2026-01-31T23:59:59", "2678400", 1, ["0.00", "1.00"],
     "2678400 x 1 / 2678400 = 1", "1.00"),
    # In the first quarter of an hour of a month it counts from its second on, too
    ("IN_ARREARS", "UTC", "100", 1, "USD", "2026-01-01T00:07:31", "300", 1, ["0.02", "299.95"],
     "2678400 - 451 = 2677949; 100 x 2677949 / 2678400 ~ 99.98; 100 - 99.98 = 0.02; "
     "300 x 2677949 / 2678400 ~ 299.95; 0.02 + 299.95 = 299.97", "299.97"),
]  # fmt: skip
