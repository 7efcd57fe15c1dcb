-- A table and a string that grow: luajit grow.lua
local t = {}
for i = 1, 600000 do
  t[i] = i * 3
end
local sum = 0
for i = 1, #t do
  sum = sum + t[i]
end
print(#t, sum)

local part = {}
for i = 1, 40 do
  part[i] = string.rep(string.char(96 + i % 26), 100000)
end
local text = table.concat(part)
print(#text, text:sub(1, 1), text:sub(2500001, 2500001), text:sub(-1))
