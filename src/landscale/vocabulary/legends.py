"""Legends as tables, one class per line in the order of the nomenclature: code, colour (rrggbb), name."""

# Copernicus Land Monitoring Service, CLC nomenclature and official legend.
CORINE = """
111 e6004d Continuous urban fabric
112 ff0000 Discontinuous urban fabric
121 cc4df2 Industrial or commercial units
122 cc0000 Road and rail networks and associated land
123 e6cccc Port areas
124 e6cce6 Airports
131 a600cc Mineral extraction sites
132 a64d00 Dump sites
133 ff4dff Construction sites
141 ffa6ff Green urban areas
142 ffe6ff Sport and leisure facilities
211 ffffa8 Non-irrigated arable land
212 ffff00 Permanently irrigated land
213 e6e600 Rice fields
221 e68000 Vineyards
222 f2a64d Fruit trees and berry plantations
223 e6a600 Olive groves
231 e6e64d Pastures
241 ffe6a6 Annual crops associated with permanent crops
242 ffe64d Complex cultivation patterns
243 e6cc4d Land principally occupied by agriculture, with significant areas of natural vegetation
244 f2cca6 Agro-forestry areas
311 80ff00 Broad-leaved forest
312 00a600 Coniferous forest
313 4dff00 Mixed forest
321 ccf24d Natural grassland
322 a6ff80 Moors and heathland
323 a6e64d Sclerophyllous vegetation
324 a6f200 Transitional woodland/shrub
331 e6e6e6 Beaches, dunes, sands
332 cccccc Bare rock
333 ccffcc Sparsely vegetated areas
334 000000 Burnt areas
411 a6a6ff Inland marshes
412 4d4dff Peatbogs
421 ccccff Salt marshes
422 e6e6ff Salines
423 a6a6e6 Intertidal flats
511 00ccf2 Water courses
512 80f2e6 Water bodies
521 00ffa6 Coastal lagoons
522 a6ffe6 Estuaries
523 e6f2ff Sea and ocean
"""

# EuroSAT (Helber et al. 2019) has no official legend; the colours are those of the nearest CORINE class.
EUROSAT = """
1 ffffa8 AnnualCrop
2 80ff00 Forest
3 ccf24d HerbaceousVegetation
4 cc0000 Highway
5 cc4df2 Industrial
6 e6e64d Pasture
7 e68000 PermanentCrop
8 ff0000 Residential
9 00ccf2 River
10 80f2e6 SeaLake
"""

# UC Merced Land Use (Yang and Newsam 2010), no official legend either: shades of the nearest CORINE class.
UC_MERCED = """
1 ffffa8 agricultural
2 e6cce6 airplane
3 ffe6ff baseballdiamond
4 e6e6e6 beach
5 cc4df2 buildings
6 a6e64d chaparral
7 e6004d denseresidential
8 80ff00 forest
9 cc0000 freeway
10 ffa6ff golfcourse
11 e6cccc harbor
12 b30000 intersection
13 ff0000 mediumresidential
14 ff8080 mobilehomepark
15 990000 overpass
16 b3b3b3 parkinglot
17 00ccf2 river
18 cc99cc runway
19 ffb3b3 sparseresidential
20 a600cc storagetanks
21 ffccff tenniscourt
"""

# The multi-labels of UC Merced (Chaudhuri et al. 2018), in the order of their columns.
UC_MERCED_MULTI = """
1 e6cce6 airplane
2 cccccc bare-soil
3 cc4df2 buildings
4 ff4dff cars
5 a6e64d chaparral
6 ffccff court
7 e6cccc dock
8 ffffa8 field
9 ccf24d grass
10 ff8080 mobile-home
11 b3b3b3 pavement
12 e6e6e6 sand
13 e6f2ff sea
14 a64d00 ship
15 a600cc tanks
16 80ff00 trees
17 80f2e6 water
"""

# The simplified IGBP scheme of SEN12MS (Schmitt and Wu 2021), with the colours of MODIS' IGBP legend (MCD12Q1). A class that
# combines several IGBP classes has the colour that the Data Fusion Contest 2020 uses.
IGBP = """
1 009900 Forests
2 c6b044 Shrubland
3 fbff13 Savanna
4 b6ff05 Grassland
5 27ff87 Wetlands
6 c24f44 Croplands
7 a5a5a5 Urban/Built-up
8 69fff8 Snow/Ice
9 f9ffa4 Barren
10 1c0dff Water
"""

# Local climate zones 1 to 10 and A to G (Stewart and Oke 2012), with the colours of WUDAPT.
LCZ = """
1 8c0000 Compact high-rise
2 d10000 Compact mid-rise
3 ff0000 Compact low-rise
4 bf4d00 Open high-rise
5 ff6600 Open mid-rise
6 ff9955 Open low-rise
7 faee05 Lightweight low-rise
8 bcbcbc Large low-rise
9 ffccaa Sparsely built
10 555555 Heavy industry
11 006a00 Dense trees
12 00aa00 Scattered trees
13 648525 Bush, scrub
14 b9db79 Low plants
15 000000 Bare rock or paved
16 fbf7ae Bare soil or sand
17 6a6aff Water
"""
