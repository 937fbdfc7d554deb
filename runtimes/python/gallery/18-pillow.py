# expects: image/png
from PIL import Image, ImageDraw

image = Image.new("RGB", (320, 200), "navy")
draw = ImageDraw.Draw(image)
draw.ellipse((110, 50, 210, 150), fill="gold", outline="white", width=3)
draw.text((130, 165), "Hello", fill="white")
image
