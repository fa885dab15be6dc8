@echo off
rem Keyfit offline kit: the start menu for Windows.
rem
rem   start.cmd                   asks
rem   start.cmd system [BRAND]    1. System Upgrade: what prepares the system
rem   start.cmd driver [BRAND]    2. Driver Installation: the token's driver
rem
rem Up to seven further arguments are handed on, for example: start.cmd driver acme --silent
rem Ends with the exit code of keyfit (see README.txt).
setlocal EnableExtensions DisableDelayedExpansion
rem The dot keeps the last backslash from quoting the quotation mark.
set "KIT=%~dp0."
set "ARCH=%PROCESSOR_ARCHITECTURE%"
if defined PROCESSOR_ARCHITEW6432 set "ARCH=%PROCESSOR_ARCHITEW6432%"
set "SUBFOLDER=windows-amd64"
if /i "%ARCH%"=="ARM64" set "SUBFOLDER=windows-arm64"
if /i "%ARCH%"=="x86" set "SUBFOLDER=windows-i386"
set "PROGRAM=%~dp0program\%SUBFOLDER%\keyfit.exe"
if exist "%PROGRAM%" goto found
set "PROGRAM=%ProgramFiles%\Keyfit\keyfit.exe"
if exist "%PROGRAM%" goto found
for %%P in (keyfit.exe) do set "PROGRAM=%%~$PATH:P"
if defined PROGRAM goto found
echo This kit has no Keyfit for this system, and none is installed. Install Keyfit first, then start this again.
exit /b 1633

:found
if /i "%~1"=="system" goto direct
if /i "%~1"=="driver" goto direct
if not "%~1"=="" goto usage
set "CODE=0"

:menu
echo.
echo Keyfit offline kit
echo   1) System Upgrade        first: prepares this computer
echo   2) Driver Installation   then: installs the token's driver
echo   q) Quit
choice /c 12Q /n /m "> "
if errorlevel 3 goto end
if errorlevel 2 goto two
if errorlevel 1 goto one
goto end

:one
"%PROGRAM%" install --source "%KIT%" --part system
set "CODE=%ERRORLEVEL%"
goto told

:two
"%PROGRAM%" install --source "%KIT%" --part driver
set "CODE=%ERRORLEVEL%"

:told
if "%CODE%"=="740" echo Administrator rights are needed: right-click start.cmd and choose "Run as administrator".
goto menu

:direct
"%PROGRAM%" install --source "%KIT%" --part %~1 %2 %3 %4 %5 %6 %7 %8
exit /b %ERRORLEVEL%

:usage
echo Usage: start.cmd [system^|driver [BRAND]]
exit /b 1639

:end
exit /b %CODE%
